@NullMarked
package dev.pocketvl.core.bundle;

import org.jspecify.annotations.NullMarked;
