package dev.pocketvl.core.image;

import com.drew.imaging.ImageMetadataReader;
import com.drew.imaging.ImageProcessingException;
import com.drew.metadata.MetadataException;
import com.drew.metadata.exif.ExifIFD0Directory;
import dev.pocketvl.core.errors.InputException;
import java.awt.image.BufferedImage;
import java.awt.image.ColorModel;
import java.awt.image.IndexColorModel;
import java.awt.image.Raster;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import javax.imageio.ImageIO;
import org.jspecify.annotations.Nullable;

/** Decodes by ImageIO, with orientations from metadata-extractor: what the tests have in the place of Android's. */
public final class DesktopPictureDecoder implements PictureDecoder {
    @Override
    public Picture decode(byte[] file) {
        @Nullable BufferedImage image;
        try {
            image = ImageIO.read(new ByteArrayInputStream(file));
        } catch (IOException | RuntimeException error) {
            throw new InputException("the picture is damaged (" + error.getMessage() + "); give another one", error);
        }
        if (image == null) {
            throw new InputException("the file is no JPEG, PNG, GIF, BMP or TIFF; save the picture as PNG");
        }
        return new Picture(image.getWidth(), image.getHeight(), argb(image), orientation(file));
    }

    private static int[] argb(BufferedImage image) {
        int bands = image.getRaster().getNumBands();
        boolean grey = bands <= 2 && !(image.getColorModel() instanceof IndexColorModel);
        return grey ? greys(image) : image.getRGB(0, 0, image.getWidth(), image.getHeight(), null, 0, image.getWidth());
    }

    /** Greys as stored: {@code getRGB} takes them for linear and makes them brighter. */
    private static int[] greys(BufferedImage image) {
        Raster raster = image.getRaster();
        ColorModel model = image.getColorModel();
        int[] samples = raster.getSamples(0, 0, image.getWidth(), image.getHeight(), 0, (int[]) null);
        int @Nullable [] opacities = raster.getNumBands() < 2
                ? null
                : raster.getSamples(0, 0, image.getWidth(), image.getHeight(), 1, (int[]) null);
        for (int i = 0; i < samples.length; i++) {
            int alpha = opacities == null ? 255 : eightBits(opacities[i], model.getComponentSize(1));
            samples[i] = alpha << 24 | eightBits(samples[i], model.getComponentSize(0)) * 0x010101;
        }
        return samples;
    }

    private static int eightBits(int value, int bits) {
        int white = (1 << bits) - 1;
        return (int) ((255L * value + white / 2) / white);
    }

    private static int orientation(byte[] file) {
        try {
            @Nullable ExifIFD0Directory exif = ImageMetadataReader.readMetadata(new ByteArrayInputStream(file))
                    .getFirstDirectoryOfType(ExifIFD0Directory.class);
            boolean said = exif != null && exif.containsTag(ExifIFD0Directory.TAG_ORIENTATION);
            return said ? exif.getInt(ExifIFD0Directory.TAG_ORIENTATION) : 1;
        } catch (ImageProcessingException | MetadataException | IOException error) {
            return 1; // damaged EXIF data: the picture is taken as it lies
        }
    }
}
