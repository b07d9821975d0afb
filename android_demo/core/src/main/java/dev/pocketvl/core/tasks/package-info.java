@NullMarked
package dev.pocketvl.core.tasks;

import org.jspecify.annotations.NullMarked;
