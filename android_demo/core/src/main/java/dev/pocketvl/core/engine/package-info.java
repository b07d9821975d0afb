@NullMarked
package dev.pocketvl.core.engine;

import org.jspecify.annotations.NullMarked;
