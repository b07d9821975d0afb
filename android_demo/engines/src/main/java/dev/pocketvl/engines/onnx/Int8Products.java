package dev.pocketvl.engines.onnx;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.Paths;
import java.util.Arrays;
import java.util.List;
import java.util.Locale;

/** Whether this processor keeps sums of 8-bit products in 32 bits by itself. */
final class Int8Products {
    private static final Path CPUINFO = Paths.get("/proc/cpuinfo");
    private static final List<String> X86 = List.of("x86_64", "amd64", "i386", "i686", "x86");

    private Int8Products() {}

    /** ARM does; x86 does from VNNI on, and where the system does not tell, the answer is no. */
    static boolean areExact() {
        String architecture = String.valueOf(System.getProperty("os.arch")).toLowerCase(Locale.ROOT);
        return !X86.contains(architecture) || hasVnni(CPUINFO);
    }

    static boolean hasVnni(Path cpuinfo) {
        try {
            return Files.readAllLines(cpuinfo).stream()
                    .filter(line -> line.startsWith("flags"))
                    .map(line -> Arrays.asList(line.split("\\s+")))
                    .anyMatch(flags -> flags.contains("avx512_vnni") || flags.contains("avx_vnni"));
        } catch (IOException | RuntimeException untold) {
            return false;
        }
    }
}
