package dev.pocketvl.demo

import android.app.Activity
import android.content.res.Configuration
import android.os.Build
import android.view.View
import android.view.WindowInsets
import android.view.WindowInsetsController

/**
 * Draws behind the system's bars: the screen keeps clear of them and of the keyboard, and what scrolls passes under the
 * lower one.
 */
fun Activity.drawEdgeToEdge(root: View, scrolling: View) {
    val dark = resources.configuration.uiMode and Configuration.UI_MODE_NIGHT_MASK == Configuration.UI_MODE_NIGHT_YES
    if (Build.VERSION.SDK_INT >= Build.VERSION_CODES.R) {
        @Suppress("DEPRECATION") // needed below Android 15, which draws so by itself
        window.setDecorFitsSystemWindows(false)
        val bars = WindowInsetsController.APPEARANCE_LIGHT_STATUS_BARS or WindowInsetsController.APPEARANCE_LIGHT_NAVIGATION_BARS
        window.decorView.windowInsetsController?.setSystemBarsAppearance(if (dark) 0 else bars, bars)
    } else {
        @Suppress("DEPRECATION")
        window.decorView.systemUiVisibility = View.SYSTEM_UI_FLAG_LAYOUT_STABLE or
            View.SYSTEM_UI_FLAG_LAYOUT_HIDE_NAVIGATION or View.SYSTEM_UI_FLAG_LAYOUT_FULLSCREEN or
            if (dark) 0 else View.SYSTEM_UI_FLAG_LIGHT_STATUS_BAR
    }
    root.setOnApplyWindowInsetsListener { _, insets ->
        val (left, top, right, bottom) = edges(insets)
        root.setPadding(left, top, right, 0)
        scrolling.setPadding(scrolling.paddingLeft, scrolling.paddingTop, scrolling.paddingRight, bottom)
        insets
    }
}

private fun edges(insets: WindowInsets): IntArray {
    if (Build.VERSION.SDK_INT >= Build.VERSION_CODES.R) {
        val types = WindowInsets.Type.systemBars() or WindowInsets.Type.displayCutout() or WindowInsets.Type.ime()
        return insets.getInsets(types).let { intArrayOf(it.left, it.top, it.right, it.bottom) }
    }
    @Suppress("DEPRECATION")
    return insets.run { intArrayOf(systemWindowInsetLeft, systemWindowInsetTop, systemWindowInsetRight, systemWindowInsetBottom) }
}
