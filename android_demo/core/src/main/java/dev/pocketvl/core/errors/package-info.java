@NullMarked
package dev.pocketvl.core.errors;

import org.jspecify.annotations.NullMarked;
