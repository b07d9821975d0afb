package dev.pocketvl.engines.onnx;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.pocketvl.core.engine.Engine;
import dev.pocketvl.engines.EngineContract;
import dev.pocketvl.engines.TinyGraphs;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

final class OnnxEngineTest extends EngineContract {
    private static final OnnxEngine ENGINE = new OnnxEngine();

    @Override
    protected Engine engine() {
        return ENGINE;
    }

    @Test
    void versions_are_the_engines() {
        assertTrue(ENGINE.version().matches("1\\.\\d+\\.\\d+.*"), ENGINE.version());
        assertEquals(ENGINE.version(), ENGINE.release());
    }

    @Test
    void weights_in_another_file_are_refused_however_that_is_written() throws IOException {
        for (int longer : new int[] {0, 1, 2, 4, 8}) {
            ByteArrayOutputStream file = new ByteArrayOutputStream();
            file.write(TinyGraphs.bytes(TinyGraphs.image("onnx")));
            file.write(number(1 << 3 | 2, longer));
            file.write(number(8, longer));
            file.write("location".getBytes(StandardCharsets.US_ASCII));
            String message = refusedToOpen(
                    TinyGraphs.imageSpec("onnx"), TinyGraphs.direct(file.toByteArray()), ONE_THREAD);
            assertTrue(message.contains("some of its weights lie in another file"), message);
        }
    }

    @Test
    void a_name_that_holds_the_word_is_no_reason_to_refuse() {
        for (String name : new String[] {"location", "a.location", "\u0007location", "\u0009location"}) {
            byte[] text = ("\u0012" + name).getBytes(StandardCharsets.US_ASCII);
            assertFalse(ExternalData.isIn(TinyGraphs.direct(text)), name);
        }
    }

    @Test
    void vnni_is_told_by_the_flags_of_cpuinfo(@TempDir Path folder) throws IOException {
        Path cpuinfo = folder.resolve("cpuinfo");
        Files.writeString(cpuinfo, "model name\t: x\nflags\t\t: fpu avx2 avx512f avx512_vnni\n");
        assertTrue(Int8Products.hasVnni(cpuinfo));
        Files.writeString(cpuinfo, "model name\t: avx_vnni\nflags\t\t: fpu avx2 avx512f\n");
        assertFalse(Int8Products.hasVnni(cpuinfo));
        assertFalse(Int8Products.hasVnni(folder.resolve("none")));
    }

    private static byte[] number(int value, int longer) {
        byte[] bytes = new byte[longer + 1];
        for (int i = 0; i < longer; i++) {
            bytes[i] = (byte) 0x80;
        }
        bytes[0] |= (byte) value;
        return bytes;
    }
}
