@NullMarked
package dev.pocketvl.engines.onnx;

import org.jspecify.annotations.NullMarked;
