package dev.pocketvl.core.engine;

import java.util.List;

/**
 * Where a graph is computed.
 *
 * @param delegate that took it, whole or in part
 * @param notes one sentence each: why not what was asked for, and what that costs
 */
public record Placement(EngineOptions.Delegate delegate, List<String> notes) {}
