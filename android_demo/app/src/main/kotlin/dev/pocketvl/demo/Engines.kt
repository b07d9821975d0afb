package dev.pocketvl.demo

import dev.pocketvl.core.engine.Engine
import dev.pocketvl.core.errors.EngineException
import dev.pocketvl.engines.onnx.OnnxEngine
import dev.pocketvl.engines.tflite.TfliteEngine

/** The engines that are in this app and run on this processor: TFLite, and ONNX Runtime where the build was given it. */
fun installedEngines(): List<Engine> = listOf(::TfliteEngine, ::OnnxEngine).mapNotNull { make ->
    try {
        make()
    } catch (_: EngineException) { // its library is not in this app
        null
    } catch (_: LinkageError) { // nor are its classes
        null
    }
}
