#include "tflite.h"

#include <dlfcn.h>
#include <errno.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "failure.h"

/* The opaque types and the values below are those of tensorflow/lite/c/c_api.h, the same since 2.14. */
typedef struct TfLiteModel Model;
typedef struct TfLiteInterpreterOptions Options;
typedef struct TfLiteInterpreter Interpreter;
typedef struct TfLiteSignatureRunner Runner;
typedef struct TfLiteTensor Tensor;
enum { OK = 0, FLOAT32 = 1 };

/* Begins with the number of threads in every version; what follows is set by XNNPACK's own default and handed back to it. It is
 * returned in memory, being larger than two registers, and here it is larger than in any version. */
struct xnnpack_options {
    int32_t threads;
    char rest[508];
};

static struct {
    const char *(*version)(void);
    Model *(*model_create)(const char *file);
    Options *(*options_create)(void);
    void (*set_threads)(Options *, int32_t);
    struct xnnpack_options (*xnnpack_default)(void);
    void *(*xnnpack_create)(const struct xnnpack_options *);
    void (*add_delegate)(Options *, void *delegate);
    Interpreter *(*interpreter_create)(const Model *, const Options *);
    const char *(*signature_key)(const Interpreter *, int32_t index);
    Runner *(*signature_runner)(const Interpreter *, const char *key);
    int (*interpreter_allocate)(Interpreter *);
    int (*allocate)(Runner *);
    Tensor *(*input)(Runner *, const char *name);
    int (*invoke)(Runner *);
    size_t (*output_count)(const Runner *);
    const char *(*output_name)(const Runner *, int32_t index);
    const Tensor *(*output)(const Runner *, const char *name);
    int (*type)(const Tensor *);
    size_t (*bytes)(const Tensor *);
    void *(*data)(const Tensor *);
    int (*copy_from)(Tensor *, const void *, size_t);
} api;

struct graph {
    const char *file;
    Runner *runner;
};

static void *library;

static void *symbol(const char *name) {
    void *found = dlsym(library, name);
    if (!found) fail("the TFLite library beside this program has no %s; it needs 2.16 or newer", name);
    return found;
}

void tflite_open(void) {
    static const char *const names[] = {"libtensorflowlite_jni.so", "libtensorflowlite_c.so"};
    char reason[300] = "";
    for (size_t i = 0; i < sizeof names / sizeof *names && !library; i++) {
        library = dlopen(names[i], RTLD_NOW);
        if (!library && !*reason) snprintf(reason, sizeof reason, "%s", dlerror());
    }
    if (!library) fail("no TFLite library for this program (%s); put libtensorflowlite_jni.so of the AAR beside it", reason);
    /* dlsym gives an object pointer; POSIX says that it may be stored as a function's. */
#define LOAD(field, name) *(void **)&api.field = symbol("TfLite" name)
    LOAD(version, "Version");
    LOAD(model_create, "ModelCreateFromFile");
    LOAD(options_create, "InterpreterOptionsCreate");
    LOAD(set_threads, "InterpreterOptionsSetNumThreads");
    LOAD(xnnpack_default, "XNNPackDelegateOptionsDefault");
    LOAD(xnnpack_create, "XNNPackDelegateCreate");
    LOAD(add_delegate, "InterpreterOptionsAddDelegate");
    LOAD(interpreter_create, "InterpreterCreate");
    LOAD(signature_key, "InterpreterGetSignatureKey");
    LOAD(signature_runner, "InterpreterGetSignatureRunner");
    LOAD(interpreter_allocate, "InterpreterAllocateTensors");
    LOAD(allocate, "SignatureRunnerAllocateTensors");
    LOAD(input, "SignatureRunnerGetInputTensor");
    LOAD(invoke, "SignatureRunnerInvoke");
    LOAD(output_count, "SignatureRunnerGetOutputCount");
    LOAD(output_name, "SignatureRunnerGetOutputName");
    LOAD(output, "SignatureRunnerGetOutputTensor");
    LOAD(type, "TensorType");
    LOAD(bytes, "TensorByteSize");
    LOAD(data, "TensorData");
    LOAD(copy_from, "TensorCopyFromBuffer");
#undef LOAD
}

const char *tflite_version(void) { return api.version(); }

struct graph *graph_open(const char *file, const char *signature, int threads) {
    Model *model = api.model_create(file);
    if (!model) fail("%s cannot be read as a TFLite graph; push the bundle again", file);
    Options *options = api.options_create();
    api.set_threads(options, threads);
    struct xnnpack_options xnnpack = api.xnnpack_default();
    xnnpack.threads = threads;
    void *delegate = api.xnnpack_create(&xnnpack);
    if (!delegate) fail("TFLite %s makes no XNNPACK delegate here; it needs one to be fast", api.version());
    api.add_delegate(options, delegate);
    Interpreter *interpreter = api.interpreter_create(model, options);
    if (interpreter && !*signature) signature = api.signature_key(interpreter, 0);
    int ready = interpreter && signature && api.interpreter_allocate(interpreter) == OK;
    Runner *runner = ready ? api.signature_runner(interpreter, signature) : NULL;
    if (!runner || api.allocate(runner) != OK) fail("TFLite %s cannot load %s", api.version(), file);
    struct graph *graph = allocate(sizeof *graph);
    *graph = (struct graph){file, runner};
    return graph;
}

void graph_set_input(struct graph *graph, const char *name, const void *data, size_t bytes) {
    Tensor *tensor = api.input(graph->runner, name);
    if (!tensor) fail("%s has no input %s", graph->file, name);
    if (api.bytes(tensor) != bytes) {
        fail("input %s of %s takes %zu bytes, and %zu were prepared", name, graph->file, api.bytes(tensor), bytes);
    }
    if (api.copy_from(tensor, data, bytes) != OK) fail("input %s of %s cannot be filled", name, graph->file);
}

void graph_invoke(struct graph *graph) {
    if (api.invoke(graph->runner) != OK) fail("TFLite %s failed while running %s", api.version(), graph->file);
}

void graph_write_output(struct graph *graph, const char *name, const char *path) {
    const Tensor *tensor = api.output(graph->runner, name);
    if (!tensor) fail("%s has no output %s", graph->file, name);
    FILE *file = fopen(path, "wb");
    size_t bytes = api.bytes(tensor);
    if (!file || fwrite(api.data(tensor), 1, bytes, file) != bytes || fclose(file)) {
        fail("%s cannot be written (%s)", path, strerror(errno));
    }
}

int graph_is_finite(struct graph *graph) {
    for (size_t i = 0; i < api.output_count(graph->runner); i++) {
        const Tensor *tensor = api.output(graph->runner, api.output_name(graph->runner, (int32_t)i));
        if (api.type(tensor) != FLOAT32) continue;
        const float *values = api.data(tensor);
        for (size_t j = 0; j < api.bytes(tensor) / sizeof *values; j++) {
            if (!isfinite(values[j])) return 0;
        }
    }
    return 1;
}
