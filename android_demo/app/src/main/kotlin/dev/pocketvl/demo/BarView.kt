package dev.pocketvl.demo

import android.content.Context
import android.graphics.Canvas
import android.graphics.Paint
import android.util.AttributeSet
import android.view.View

/** A horizontal bar that is filled to a fraction; what it shows is said in text beside it. */
class BarView(context: Context, attributes: AttributeSet?) : View(context, attributes) {
    private val track = Paint(Paint.ANTI_ALIAS_FLAG).apply { color = context.getColor(R.color.bar_track) }
    private val fill = Paint(Paint.ANTI_ALIAS_FLAG).apply { color = context.getColor(R.color.bar) }

    /** 0 to 1. */
    var fraction = 0f
        set(value) {
            field = value.coerceIn(0f, 1f)
            invalidate()
        }

    init {
        importantForAccessibility = IMPORTANT_FOR_ACCESSIBILITY_NO
    }

    override fun onDraw(canvas: Canvas) {
        val radius = height / 2f
        canvas.drawRoundRect(0f, 0f, width.toFloat(), height.toFloat(), radius, radius, track)
        if (fraction >= LEAST_SHOWN) {
            val end = (width * fraction).coerceAtLeast(height.toFloat())
            if (layoutDirection == LAYOUT_DIRECTION_RTL) {
                canvas.drawRoundRect(width - end, 0f, width.toFloat(), height.toFloat(), radius, radius, fill)
            } else {
                canvas.drawRoundRect(0f, 0f, end, height.toFloat(), radius, radius, fill)
            }
        }
    }

    private companion object {
        /** What is written as 0.0 percent is drawn as nothing. */
        const val LEAST_SHOWN = 0.0005f
    }
}
