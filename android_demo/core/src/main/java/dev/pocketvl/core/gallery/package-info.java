@NullMarked
package dev.pocketvl.core.gallery;

import org.jspecify.annotations.NullMarked;
