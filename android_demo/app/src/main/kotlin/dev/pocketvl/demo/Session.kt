package dev.pocketvl.demo

/** Something that goes on while screens come and go; one screen at a time is told of its changes. */
abstract class Session {
    /** Called on the main thread whenever something has changed. */
    var onChange: (() -> Unit)? = null

    /** To be called on the main thread. */
    protected fun changed() {
        onChange?.invoke()
    }
}
