package dev.pocketvl.core.bundle;

import dev.pocketvl.core.errors.BundleException;
import dev.pocketvl.core.errors.Quoted;
import dev.pocketvl.core.json.Sha256;
import dev.pocketvl.core.manifest.FileEntry;
import dev.pocketvl.core.manifest.Manifest;
import dev.pocketvl.core.manifest.Variant;
import java.io.FileNotFoundException;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.FileSystemException;
import java.nio.file.NoSuchFileException;

/** An opened bundle: its manifest is valid, its files are checked when they are asked for. */
public final class Bundle {
    private final BundleSource source;
    private final Manifest manifest;
    private final String manifestSha256;

    private Bundle(BundleSource source, Manifest manifest, String manifestSha256) {
        this.source = source;
        this.manifest = manifest;
        this.manifestSha256 = manifestSha256;
    }

    /**
     * Reads the manifest.
     *
     * @throws BundleException there is none, or it is damaged, not valid, or of another major version
     */
    public static Bundle open(BundleSource source) {
        String where = source + "/" + Manifest.FILE;
        if (!source.exists(Manifest.FILE)) {
            throw new BundleException(
                    where + " does not exist; is " + source + " a bundle? `pocketvl export` writes one");
        }
        try {
            long size = source.size(Manifest.FILE);
            if (size > Manifest.MAX_JSON_BYTES) {
                throw new BundleException(where + " cannot be read (" + size + " bytes, and at most "
                        + Manifest.MAX_JSON_BYTES + " are read)");
            }
            ByteBuffer content = source.open(Manifest.FILE);
            return new Bundle(source, Manifest.read(content.duplicate(), where), Sha256.of(content));
        } catch (IOException error) {
            throw unreadable(where, error);
        }
    }

    /** What it says of itself. */
    public Manifest manifest() {
        return manifest;
    }

    /** SHA-256 of the bytes of manifest.json; as that holds the checksums of all other files, it stands for the bundle. */
    public String manifestSha256() {
        return manifestSha256;
    }

    /**
     * The content of a file of the manifest, with its size and checksum checked: through the very mapping that is
     * handed out.
     *
     * @return direct, from position 0 to the limit
     * @throws BundleException it is not in the manifest, missing, or not what was exported
     */
    public ByteBuffer read(String path) {
        return read(path, Integer.MAX_VALUE);
    }

    /**
     * The content of a file, likewise.
     *
     * @param mostBytes a larger one is refused before it is read
     */
    public ByteBuffer read(String path, int mostBytes) {
        FileEntry entry = manifest.files().get(path);
        String where = source + "/" + path;
        if (entry == null) {
            throw new BundleException(source + ": the manifest lists no file " + Quoted.quoted(path));
        }
        try {
            if (!source.exists(path)) {
                throw new NoSuchFileException(where);
            }
            long size = source.size(path);
            if (size != entry.bytes()) {
                throw damaged(where, size + " bytes, expected " + entry.bytes());
            }
            if (size > mostBytes) {
                throw new BundleException(where + " cannot be read (" + size + " bytes, and at most " + mostBytes
                        + " are read); export a smaller one");
            }
            ByteBuffer content = source.open(path);
            if (content.remaining() != entry.bytes()) {
                throw damaged(where, content.remaining() + " bytes, expected " + entry.bytes());
            }
            if (!Sha256.of(content).equals(entry.sha256())) {
                throw damaged(where, "its sha256 is not the expected " + entry.sha256().substring(0, 12) + "...");
            }
            return content;
        } catch (IOException error) {
            throw unreadable(where, error);
        }
    }

    /** The sum of a variant's graph files, in bytes. */
    public long sizeBytes(String variant) {
        return manifest.variant(variant).files().values().stream()
                .map(Variant.StoredGraph::file)
                .distinct()
                .mapToLong(file -> manifest.files().get(file).bytes())
                .sum();
    }

    /** Where it lies. */
    @Override
    public String toString() {
        return source.toString();
    }

    private static BundleException damaged(String where, String what) {
        return new BundleException(where + " is damaged: " + what + "; copy the bundle again");
    }

    private static BundleException unreadable(String where, IOException error) {
        String what = error instanceof NoSuchFileException || error instanceof FileNotFoundException
                ? "there is no such file"
                : error instanceof FileSystemException system ? system.getReason() : error.getMessage();
        return new BundleException(where + " cannot be read (" + what + "); copy the bundle again", error);
    }
}
