package dev.pocketvl.core.bundle;

import dev.pocketvl.core.engine.Engine;
import dev.pocketvl.core.engine.EngineVersion;
import dev.pocketvl.core.errors.BundleException;
import dev.pocketvl.core.errors.EngineException;
import dev.pocketvl.core.json.JsonValue;
import dev.pocketvl.core.manifest.Manifest;
import dev.pocketvl.core.manifest.Variant;
import dev.pocketvl.core.manifest.Variant.EngineKind;
import dev.pocketvl.core.manifest.Variant.Precision;
import java.util.Arrays;
import java.util.Collection;
import java.util.Comparator;
import java.util.List;
import java.util.stream.Collectors;

/** Which variants the engines of an app can run, and what is taken where nobody names one. */
public final class VariantChoice {
    private static final List<Precision> PRECISIONS =
            Arrays.asList(Precision.INT8, Precision.FP16, Precision.FP32);
    private static final List<EngineKind> ENGINES = Arrays.asList(EngineKind.TFLITE, EngineKind.ONNX);

    private VariantChoice() {}

    /**
     * The engine that runs a variant.
     *
     * @param engines those of the app
     * @throws BundleException there is no such variant
     * @throws EngineException the app has no such engine, or an older one than the variant asks for
     */
    public static Engine engineFor(Manifest manifest, String variant, Collection<? extends Engine> engines) {
        Variant found = manifest.variant(variant);
        String wanted = JsonValue.label(found.engine());
        String least = found.minEngine();
        for (Engine engine : engines) {
            if (engine.name().equals(wanted)) {
                if (least != null && !EngineVersion.isAtLeast(engine.release(), least)) {
                    throw new EngineException("variant " + variant + " needs " + wanted + " " + least
                            + " or newer, and this is " + engine.release() + "; use another variant");
                }
                return engine;
            }
        }
        throw new EngineException("variant " + variant + " needs the engine " + wanted
                + ", which this app does not have; use another variant");
    }

    /** The variants that some engines can run, in the manifest's order. */
    public static List<String> runnable(Manifest manifest, Collection<? extends Engine> engines) {
        return manifest.variants().keySet().stream()
                .filter(variant -> runs(manifest, variant, engines))
                .collect(Collectors.toList());
    }

    /**
     * What is taken where nobody names a variant: an accepted one; static int8 before fp16 before fp32 before others,
     * and TFLite before ONNX.
     *
     * @throws EngineException none can be run
     */
    public static String preferred(Manifest manifest, Collection<? extends Engine> engines) {
        return runnable(manifest, engines).stream()
                .filter(name -> manifest.variant(name).status() == Variant.Status.ACCEPTED)
                .min(Comparator.comparingInt((String name) -> rank(PRECISIONS, manifest.variant(name).precision()))
                        .thenComparingInt(name -> rank(ENGINES, manifest.variant(name).engine())))
                .orElseThrow(() -> new EngineException("no accepted variant of " + manifest.name()
                        + " can run here; it has " + manifest.variants().keySet()
                        + ", and this app has " + described(engines)));
    }

    private static boolean runs(Manifest manifest, String variant, Collection<? extends Engine> engines) {
        try {
            engineFor(manifest, variant, engines);
            return true;
        } catch (EngineException cannot) {
            return false;
        }
    }

    private static <E> int rank(List<E> order, E item) {
        int found = order.indexOf(item);
        return found < 0 ? order.size() : found;
    }

    private static String described(Collection<? extends Engine> engines) {
        return engines.isEmpty()
                ? "no engine"
                : engines.stream()
                        .map(engine -> engine.name() + " " + engine.version())
                        .collect(Collectors.joining(", "));
    }
}
