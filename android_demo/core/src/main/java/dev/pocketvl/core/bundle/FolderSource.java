package dev.pocketvl.core.bundle;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.FileSystemException;
import java.nio.file.Files;
import java.nio.file.LinkOption;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.nio.file.attribute.BasicFileAttributes;

/**
 * A bundle in a folder. Files are memory-mapped; links within the folder are refused, and so is what is not a regular
 * file. The folder itself may be reached through a link.
 */
public final class FolderSource implements BundleSource {
    private final Path root;

    public FolderSource(Path root) {
        this.root = root;
    }

    @Override
    public boolean exists(String path) {
        return Files.exists(root.resolve(path), LinkOption.NOFOLLOW_LINKS);
    }

    @Override
    public long size(String path) throws IOException {
        Path place = root;
        for (String part : path.split("/")) {
            place = place.resolve(part);
            if (Files.isSymbolicLink(place)) {
                throw new FileSystemException(place.toString(), null, "a link, which is not followed");
            }
        }
        BasicFileAttributes found =
                Files.readAttributes(place, BasicFileAttributes.class, LinkOption.NOFOLLOW_LINKS);
        if (!found.isRegularFile()) {
            throw new FileSystemException(place.toString(), null, "not a regular file");
        }
        return found.size();
    }

    @Override
    public ByteBuffer open(String path) throws IOException {
        size(path); // refuses what is not a regular file: a pipe would be waited for
        Path place = root.resolve(path);
        try (FileChannel channel =
                FileChannel.open(place, StandardOpenOption.READ, LinkOption.NOFOLLOW_LINKS)) {
            if (channel.size() > Integer.MAX_VALUE) {
                throw new FileSystemException(place.toString(), null, "more than 2 GB");
            }
            return channel.map(FileChannel.MapMode.READ_ONLY, 0, channel.size());
        }
    }

    @Override
    public String toString() {
        return root.toString();
    }
}
