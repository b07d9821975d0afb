package dev.pocketvl.demo

import android.app.Activity

/** A screen that shows where a session stands, and is told of its changes while it can be seen. */
abstract class SessionActivity : Activity() {
    protected abstract val session: Session

    /** Shows where the session stands. */
    protected abstract fun show()

    override fun onStart() {
        super.onStart()
        session.onChange = ::show
        show()
    }

    override fun onStop() {
        super.onStop()
        session.onChange = null
    }
}
