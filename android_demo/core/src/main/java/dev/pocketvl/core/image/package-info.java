@NullMarked
package dev.pocketvl.core.image;

import org.jspecify.annotations.NullMarked;
