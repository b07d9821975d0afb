@NullMarked
package dev.pocketvl.core.json;

import org.jspecify.annotations.NullMarked;
