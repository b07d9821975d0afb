package dev.pocketvl.core.manifest;

/** What a port carries. */
public enum PortKind {
    PIXELS,
    AUDIO_FEATURES,
    TOKEN_IDS,
    ATTENTION_MASK,
    POSITION,
    HIDDEN,
    EMBEDDING,
    CLASS_LOGITS,
    TOKEN_LOGITS,
    KV_CACHE
}
