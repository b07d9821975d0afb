package dev.pocketvl.core.gallery;

/**
 * A stored vector that a search found.
 *
 * @param id that it was stored under
 * @param similarity its cosine with the query
 */
public record Hit(long id, double similarity) {}
