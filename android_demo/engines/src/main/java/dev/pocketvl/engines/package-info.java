@NullMarked
package dev.pocketvl.engines;

import org.jspecify.annotations.NullMarked;
