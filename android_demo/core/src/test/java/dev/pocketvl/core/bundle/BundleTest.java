package dev.pocketvl.core.bundle;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.pocketvl.core.errors.BundleException;
import java.io.IOException;
import java.io.RandomAccessFile;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Set;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

class BundleTest {
    private static final String GRAPH = "graphs/text_encoder.fp32.onnx";

    @TempDir
    Path folder;

    @ParameterizedTest
    @ValueSource(strings = {"format-2.0", "format-2.1", "labels-2.0", "embed-2.0"})
    void whatTheReadmeSaysIsReadableOpensAndAllItsFilesAreWhole(String name) {
        Bundle bundle = TestBundles.open(name);
        assertEquals(List.of("onnx-fp32", "tflite-fp32"), List.copyOf(bundle.manifest().variants().keySet()));
        bundle.manifest().files().forEach((path, entry) -> assertEquals(entry.bytes(), bundle.read(path).remaining()));
    }

    @Test
    void aNewerMinorVersionHasTheTasksThatAreKnown() {
        assertEquals(Set.of("classify", "match"), TestBundles.open("format-2.1").manifest().tasks().keySet());
    }

    @ParameterizedTest
    @CsvSource(delimiter = '|', value = {
        "format-3.0 | version is 3.0, and this runtime reads 2.x; install a newer version of this app",
        "flipped-bit | is damaged or was edited: manifest_sha256 is not",
        "format-1 | is of format 1, and this runtime reads 2.x; export the bundle again"
    })
    void whatTheReadmeSaysIsToBeRefusedIs(String name, String said) {
        assertTrue(refused(() -> TestBundles.open(name)).contains(said));
    }

    @Test
    void aFileIsMappedAndHasTheBytesOfTheFolder() throws IOException {
        ByteBuffer content = TestBundles.open("format-2.0").read(GRAPH);
        assertTrue(content.isDirect());
        byte[] found = new byte[content.remaining()];
        content.get(found);
        assertArrayEquals(Files.readAllBytes(TestBundles.folder("format-2.0").resolve(GRAPH)), found);
    }

    @Test
    void oneChangedByteIsNoticed() throws IOException {
        Path root = TestBundles.copy("format-2.0", folder);
        byte[] content = Files.readAllBytes(root.resolve(GRAPH));
        content[content.length / 2] ^= 1;
        Files.write(root.resolve(GRAPH), content);
        Bundle bundle = Bundle.open(new FolderSource(root));
        String said = refused(() -> bundle.read(GRAPH));
        assertTrue(said.contains("text_encoder.fp32.onnx is damaged: its sha256 is not the expected"), said);
    }

    @ParameterizedTest
    @ValueSource(ints = {-1, 1})
    void aFileOfAnotherSizeIsRefusedBeforeItIsRead(int more) throws IOException {
        Path root = TestBundles.copy("format-2.0", folder);
        long size = Files.size(root.resolve(GRAPH));
        try (RandomAccessFile file = new RandomAccessFile(root.resolve(GRAPH).toFile(), "rw")) {
            file.setLength(size + more);
        }
        BundleSource stored = new FolderSource(root);
        BundleSource unread = new BundleSource() {
            @Override
            public boolean exists(String path) {
                return stored.exists(path);
            }

            @Override
            public long size(String path) throws IOException {
                return stored.size(path);
            }

            @Override
            public ByteBuffer open(String path) throws IOException {
                assertEquals("manifest.json", path);
                return stored.open(path);
            }
        };
        Bundle bundle = Bundle.open(unread);
        assertTrue(refused(() -> bundle.read(GRAPH)).contains(size + more + " bytes, expected " + size));
    }

    @Test
    void whatIsNoRegularFileIsNotRead() throws IOException {
        Path root = TestBundles.copy("format-2.0", folder);
        Bundle bundle = Bundle.open(new FolderSource(root));
        Path moved = Files.move(root.resolve(GRAPH), folder.resolve("elsewhere"));
        assertTrue(refused(() -> bundle.read(GRAPH)).contains("cannot be read (there is no such file)"));
        Files.createSymbolicLink(root.resolve(GRAPH), moved);
        assertTrue(refused(() -> bundle.read(GRAPH)).contains("a link, which is not followed"));
        Files.delete(root.resolve(GRAPH));
        Files.createDirectory(root.resolve(GRAPH));
        assertTrue(refused(() -> bundle.read(GRAPH)).contains("not a regular file"));
    }

    @Test
    void aFolderWithinThatIsALinkIsNotFollowed() throws IOException {
        Path root = TestBundles.copy("format-2.0", folder);
        Files.move(root.resolve("graphs"), folder.resolve("graphs"));
        Files.createSymbolicLink(root.resolve("graphs"), folder.resolve("graphs"));
        Bundle bundle = Bundle.open(new FolderSource(root));
        assertTrue(refused(() -> bundle.read(GRAPH)).contains("a link, which is not followed"));
    }

    @Test
    void theFolderItselfMayBeReachedThroughALink() throws IOException {
        Path root = TestBundles.copy("format-2.0", folder);
        Path link = Files.createSymbolicLink(folder.resolve("latest"), root);
        assertTrue(Bundle.open(new FolderSource(link)).read(GRAPH).hasRemaining());
    }

    @Test
    void aManifestThatIsALinkIsNotFollowedAndNothingOfItIsQuoted() throws IOException {
        Path root = TestBundles.copy("format-2.0", folder);
        Files.write(folder.resolve("secret"), "{\"s3cret\": 1}".getBytes());
        Files.delete(root.resolve("manifest.json"));
        Files.createSymbolicLink(root.resolve("manifest.json"), folder.resolve("secret"));
        String said = refused(() -> Bundle.open(new FolderSource(root)));
        assertTrue(said.contains("a link, which is not followed") && !said.contains("s3cret"), said);
    }

    @Test
    void aManifestBeyondReasonIsNotRead() throws IOException {
        Path root = TestBundles.copy("format-2.0", folder);
        try (RandomAccessFile file = new RandomAccessFile(root.resolve("manifest.json").toFile(), "rw")) {
            file.setLength(16_000_001);
        }
        String said = refused(() -> Bundle.open(new FolderSource(root)));
        assertTrue(said.contains("16000001 bytes, and at most 16000000 are read"), said);
    }

    @Test
    void aFolderWithoutAManifestIsTold() {
        assertTrue(refused(() -> Bundle.open(new FolderSource(folder))).contains("manifest.json does not exist; is "));
    }

    @Test
    void filesThatTheManifestDoesNotListAreNotHandedOut() throws IOException {
        Path root = TestBundles.copy("format-2.0", folder);
        Files.write(root.resolve("graphs/extra.onnx"), new byte[0]);
        Bundle bundle = Bundle.open(new FolderSource(root));
        assertTrue(refused(() -> bundle.read("graphs/extra.onnx")).contains("lists no file 'graphs/extra.onnx'"));
        assertTrue(refused(() -> bundle.read("manifest.json")).contains("lists no file"));
    }

    @Test
    void aVariantThatThereIsNotListsThoseThereAre() {
        Bundle bundle = TestBundles.open("format-2.0");
        String said = refused(() -> bundle.sizeBytes("onnx-int4"));
        assertTrue(said.contains("has no variant 'onnx-int4'; it has onnx-fp32, tflite-fp32"), said);
    }

    private static String refused(Runnable reading) {
        String said = String.valueOf(assertThrows(BundleException.class, reading::run).getMessage());
        assertTrue(!said.contains("\n") && said.length() < 600, said);
        return said;
    }
}
