package dev.pocketvl.demo

import android.app.Activity
import android.view.LayoutInflater
import android.view.View
import android.view.ViewGroup

/** A view of this screen's layout, which has it. */
fun <T : View> Activity.view(id: Int): T = checkNotNull(findViewById<T>(id))

/** A view within this one, which has it. */
fun <T : View> View.view(id: Int): T = checkNotNull(findViewById<T>(id))

/** Shows one row for each item, and makes or takes away views as needed. */
fun ViewGroup.fill(layout: Int, items: IntRange, show: (View, Int) -> Unit) {
    val count = items.count()
    while (childCount > count) removeViewAt(childCount - 1)
    while (childCount < count) LayoutInflater.from(context).inflate(layout, this, true)
    items.forEach { show(getChildAt(it), it) }
}
