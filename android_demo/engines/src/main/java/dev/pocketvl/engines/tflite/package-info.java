@NullMarked
package dev.pocketvl.engines.tflite;

import org.jspecify.annotations.NullMarked;
