package dev.pocketvl.demo

import android.content.Context
import dev.pocketvl.core.errors.BundleException
import dev.pocketvl.core.errors.EngineException
import dev.pocketvl.core.errors.InputException
import java.io.IOException

/** What is said to the user when something failed: what happened, and what to do. */
fun Context.messageFor(error: Throwable): String = when (error) {
    is BundleException -> getString(R.string.error_bundle, error.message)
    is EngineException -> getString(R.string.error_engine, error.message)
    is InputException -> getString(R.string.error_input, error.message)
    is NoBundleException, is ScreenLockedException -> error.message.orEmpty()
    is PictureTooLargeException -> getString(R.string.error_picture_too_large, error.megabytes)
    is OutOfMemoryError -> getString(R.string.error_memory)
    is SecurityException -> getString(R.string.error_permission, error.message)
    is IOException -> getString(R.string.error_picture_gone)
    is UserException -> getString(error.text, *error.arguments)
    else -> getString(R.string.error_other, error.toString())
}

/** Nothing is measured behind a locked screen; the message is for users. */
class ScreenLockedException(message: String) : RuntimeException(message)

/** Something that the user has to do first. */
class UserException(val text: Int, vararg val arguments: Any) : Exception()
