package dev.pocketvl.core.text;

import java.util.List;

/** Splits a piece of a normalized text into words. */
interface PreTokenizer {
    List<Piece> split(Piece piece);
}
