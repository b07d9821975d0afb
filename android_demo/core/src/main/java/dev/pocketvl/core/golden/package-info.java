@NullMarked
package dev.pocketvl.core.golden;

import org.jspecify.annotations.NullMarked;
