@NullMarked
package dev.pocketvl.core.bench;

import org.jspecify.annotations.NullMarked;
