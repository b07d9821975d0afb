package dev.pocketvl.engines.tflite;

import dev.pocketvl.core.engine.GraphSpec;
import dev.pocketvl.core.errors.EngineException;
import dev.pocketvl.core.errors.Quoted;
import dev.pocketvl.engines.GraphChecks;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import org.jspecify.annotations.Nullable;

/**
 * What a TFLite file says of its signature, read before the interpreter sees it: TFLite reads whatever lies at a tensor index that
 * is no tensor's, and crashes, and a crash takes the app with it.
 *
 * @param signature the file's only one
 * @param operators of its graph
 */
record TfliteFile(String signature, int operators) {
    // Numbers of fields in TensorFlow Lite's schema.fbs.
    private static final int MODEL_SUBGRAPHS = 2;
    private static final int MODEL_SIGNATURES = 7;
    private static final int SUBGRAPH_TENSORS = 0;
    private static final int SUBGRAPH_INPUTS = 1;
    private static final int SUBGRAPH_OUTPUTS = 2;
    private static final int SUBGRAPH_OPERATORS = 3;
    private static final int SIGNATURE_INPUTS = 0;
    private static final int SIGNATURE_OUTPUTS = 1;
    private static final int SIGNATURE_KEY = 2;
    private static final int SIGNATURE_SUBGRAPH = 4;
    private static final int ENTRY_NAME = 0;
    private static final int ENTRY_TENSOR = 1;

    /**
     * Reads a file and holds its signature against the graph's inputs and outputs.
     *
     * @throws EngineException it is no TFLite file, it has no signature or several, or the signature names tensors that the graph
     *     neither takes nor gives
     */
    static TfliteFile read(GraphSpec spec, ByteBuffer content) {
        try {
            FlatTable model = FlatTable.root(content);
            FlatTable signature = onlySignature(spec, model);
            List<FlatTable> subgraphs = model.tables(MODEL_SUBGRAPHS);
            int number = signature.number(SIGNATURE_SUBGRAPH, 0);
            if (number != 0 || subgraphs.isEmpty()) {
                throw new EngineException(spec.graphId() + ": its signature is of subgraph " + number + " of "
                        + subgraphs.size() + ", and the first is wanted; export the bundle again");
            }
            FlatTable graph = subgraphs.get(0);
            int tensors = graph.tables(SUBGRAPH_TENSORS).size();
            check(spec, signature.tables(SIGNATURE_INPUTS), graph.numbers(SUBGRAPH_INPUTS), tensors);
            check(spec, signature.tables(SIGNATURE_OUTPUTS), graph.numbers(SUBGRAPH_OUTPUTS), tensors);
            String key = signature.text(SIGNATURE_KEY);
            return new TfliteFile(key == null ? "" : key, graph.tables(SUBGRAPH_OPERATORS).size());
        } catch (IndexOutOfBoundsException | IllegalArgumentException damaged) {
            throw GraphChecks.failure(
                    spec.graphId() + ": it is no TFLite file, or a damaged one; export the bundle again", damaged);
        }
    }

    private static FlatTable onlySignature(GraphSpec spec, FlatTable model) {
        Map<String, FlatTable> found = new LinkedHashMap<>();
        List<FlatTable> signatures = model.tables(MODEL_SIGNATURES);
        for (FlatTable each : signatures) {
            String key = each.text(SIGNATURE_KEY);
            found.put(key == null ? "" : key, each);
        }
        String wanted = spec.signature();
        if (signatures.size() != 1 || (wanted != null && !found.containsKey(wanted))) {
            throw new EngineException(spec.graphId() + ": one signature" + (wanted == null ? "" : " " + Quoted.quoted(wanted))
                    + " is wanted, and it has " + quoted(found.keySet()) + "; export the bundle again");
        }
        return signatures.get(0);
    }

    /** A signature's inputs (or outputs) must be the graph's, each under one name. */
    private static void check(GraphSpec spec, List<FlatTable> entries, List<Integer> ports, int tensors) {
        Set<Integer> named = new HashSet<>();
        List<String> names = new ArrayList<>();
        for (FlatTable entry : entries) {
            int tensor = entry.number(ENTRY_TENSOR, 0);
            if (!ports.contains(tensor) || tensor < 0 || tensor >= tensors) {
                throw new EngineException(spec.graphId() + ": its signature names tensor " + tensor
                        + ", which it neither takes nor gives; export the bundle again");
            }
            named.add(tensor);
            names.add(text(entry.text(ENTRY_NAME)));
        }
        if (!named.equals(new HashSet<>(ports)) || names.size() != ports.size()) {
            throw new EngineException(spec.graphId() + ": its signature names " + quoted(names) + ", and its graph has "
                    + ports.size() + " such tensors; export the bundle again");
        }
    }

    private static String text(@Nullable String name) {
        return name == null ? "" : name;
    }

    private static String quoted(Iterable<String> names) {
        TreeSet<String> sorted = new TreeSet<>();
        names.forEach(name -> sorted.add(Quoted.quoted(name)));
        return sorted.toString();
    }
}
