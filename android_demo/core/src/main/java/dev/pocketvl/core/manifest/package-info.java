@NullMarked
package dev.pocketvl.core.manifest;

import org.jspecify.annotations.NullMarked;
