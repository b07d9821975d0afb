package dev.pocketvl.core.manifest;

/**
 * What a file of the bundle must be.
 *
 * @param sha256 of its bytes, in lower-case hex digits
 * @param bytes its size
 */
public record FileEntry(String sha256, long bytes) {}
