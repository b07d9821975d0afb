package dev.pocketvl.core.bench;

import java.util.Arrays;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import org.jspecify.annotations.Nullable;

/**
 * Where a bench was run.
 *
 * @param device model of the device, or null: not known
 * @param cpu name of the processor
 * @param architecture as the system calls it: {@code aarch64}, {@code x86_64}
 * @param isa instruction set that decides how fast int8 is
 * @param exactInt8 whether sums of 8-bit products are kept in 32 bits
 * @param processors logical processors of the machine
 * @param usableProcessors how many of them the process could use at once
 * @param memoryBytes of the machine, or null: not known
 * @param os name and version: {@code Android 15}
 * @param governors frequency governors, each named once, sorted; empty: not known
 * @param emulated whether the processor, or the whole phone, is an emulator's
 * @param mhzMax the highest frequency that a processor may take, or null: not known
 */
public record Machine(
        @Nullable String device,
        String cpu,
        String architecture,
        String isa,
        boolean exactInt8,
        int processors,
        int usableProcessors,
        @Nullable Long memoryBytes,
        String os,
        List<String> governors,
        boolean emulated,
        @Nullable Double mhzMax) {
    public Machine {
        governors = List.copyOf(governors);
    }

    private static final Set<String> ARM = Set.of("aarch64", "arm64");
    private static final Set<String> X86 = Set.of("x86_64", "amd64", "i386", "i686");
    /** Flags of /proc/cpuinfo and what they mean, the best first. */
    private static final String[][] X86_LEVELS = {
        {"avx512_vnni", "avx512_vnni"},
        {"avx_vnni", "avx_vnni"},
        {"avx512bw", "avx512"},
        {"avx2", "avx2"},
        {"avx", "avx"}
    };

    /**
     * The instruction set that decides how fast int8 is, as docs/BENCH.md names it.
     *
     * @param architecture as the system calls it
     * @param cpuinfo the text of /proc/cpuinfo; empty where it cannot be read
     */
    public static String isa(String architecture, String cpuinfo) {
        Set<String> flags = flags(cpuinfo);
        if (ARM.contains(architecture)) {
            return "neon" + (flags.contains("asimddp") ? "+dotprod" : "") + (flags.contains("i8mm") ? "+i8mm" : "");
        }
        for (String[] level : X86_LEVELS) {
            if (X86.contains(architecture) && flags.contains(level[0])) {
                return level[1] + (flags.contains("amx_int8") ? "+amx" : "");
            }
        }
        return architecture;
    }

    /** Whether a processor keeps sums of 8-bit products in 32 bits: ARM does, x86 only with VNNI. */
    public static boolean isExactInt8(String architecture, String isa) {
        return !X86.contains(architecture) || isa.contains("_vnni");
    }

    private static Set<String> flags(String cpuinfo) {
        Set<String> found = new HashSet<>();
        for (String line : cpuinfo.split("\n")) {
            int colon = line.indexOf(':');
            String key = colon < 0 ? "" : line.substring(0, colon).trim();
            if (key.equals("flags") || key.equals("Features")) {
                found.addAll(Arrays.asList(line.substring(colon + 1).trim().split("\\s+")));
            }
        }
        return found;
    }
}
