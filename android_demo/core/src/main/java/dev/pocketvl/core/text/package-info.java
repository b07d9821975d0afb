@NullMarked
package dev.pocketvl.core.text;

import org.jspecify.annotations.NullMarked;
