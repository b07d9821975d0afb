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

/* tensorflow/lite/profiling/telemetry/c/profiler.h. Of the engine's own kernels beginning and end are told, of what a delegate runs how
 * long it took. */
typedef struct Profiler {
    struct op_log *log;
    void (*event)(struct Profiler *, const char *name, uint64_t status);
    void (*op_event)(struct Profiler *, const char *name, int64_t node, int64_t subgraph, uint64_t status);
    void (*settings)(struct Profiler *, const char *name, const void *settings);
    uint32_t (*begin)(struct Profiler *, const char *name, int64_t node, int64_t subgraph);
    void (*end)(struct Profiler *, uint32_t handle);
    void (*op)(struct Profiler *, const char *name, uint64_t us, int64_t node, int64_t subgraph);
} Profiler;

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
    void (*xnnpack_delete)(void *delegate);
    void (*add_delegate)(Options *, void *delegate);
    void (*set_profiler)(Options *, Profiler *); /* NULL in old versions */
    Interpreter *(*interpreter_create)(const Model *, const Options *);
    void (*interpreter_delete)(Interpreter *);
    void (*options_delete)(Options *);
    void (*model_delete)(Model *);
    void (*runner_delete)(Runner *);
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
    Interpreter *interpreter;
    void *delegate;
    Model *model;
    Profiler profiler; /* heard of by the interpreter as long as it lives */
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
    LOAD(xnnpack_delete, "XNNPackDelegateDelete");
    LOAD(add_delegate, "InterpreterOptionsAddDelegate");
    LOAD(interpreter_create, "InterpreterCreate");
    LOAD(interpreter_delete, "InterpreterDelete");
    LOAD(options_delete, "InterpreterOptionsDelete");
    LOAD(model_delete, "ModelDelete");
    LOAD(runner_delete, "SignatureRunnerDelete");
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
    *(void **)&api.set_profiler = dlsym(library, "TfLiteInterpreterOptionsSetTelemetryProfiler");
}

const char *tflite_version(void) { return api.version(); }

int tflite_tells_ops(void) { return api.set_profiler != NULL; }

static void ignore_event(Profiler *profiler, const char *name, uint64_t status) { (void)profiler, (void)name, (void)status; }

static void ignore_op_event(Profiler *profiler, const char *name, int64_t node, int64_t subgraph, uint64_t status) {
    (void)profiler, (void)name, (void)node, (void)subgraph, (void)status;
}

static void ignore_settings(Profiler *profiler, const char *name, const void *settings) { (void)profiler, (void)name, (void)settings; }

/* Numbers of nodes and subgraphs are in the lower half; the upper one is used in some versions, for other things. */
static int64_t lower_half(int64_t number) { return number & 0xffffffff; }

static uint32_t on_op_begin(Profiler *profiler, const char *name, int64_t node, int64_t subgraph) {
    op_begin(profiler->log, name, lower_half(node), lower_half(subgraph));
    return 0;
}

static void on_op_end(Profiler *profiler, uint32_t handle) {
    (void)handle; /* what began last ends first */
    op_end(profiler->log);
}

static void on_delegated_op(Profiler *profiler, const char *name, uint64_t us, int64_t node, int64_t subgraph) {
    op_delegated(profiler->log, name, us, lower_half(node), lower_half(subgraph));
}

struct graph *graph_open(const char *file, const char *signature, int threads, struct op_log *log) {
    struct graph *graph = allocate(sizeof *graph);
    graph->file = file;
    graph->profiler = (Profiler){log, ignore_event, ignore_op_event, ignore_settings, on_op_begin, on_op_end, on_delegated_op};
    graph->model = api.model_create(file);
    if (!graph->model) fail("%s cannot be read as a TFLite graph; push the bundle again", file);
    Options *options = api.options_create();
    api.set_threads(options, threads);
    struct xnnpack_options xnnpack = api.xnnpack_default();
    xnnpack.threads = threads;
    graph->delegate = api.xnnpack_create(&xnnpack);
    if (!graph->delegate) fail("TFLite %s makes no XNNPACK delegate here; it needs one to be fast", api.version());
    api.add_delegate(options, graph->delegate);
    if (log) api.set_profiler(options, &graph->profiler);
    graph->interpreter = api.interpreter_create(graph->model, options);
    api.options_delete(options);
    if (graph->interpreter && !*signature) signature = api.signature_key(graph->interpreter, 0);
    int ready = graph->interpreter && signature && api.interpreter_allocate(graph->interpreter) == OK;
    graph->runner = ready ? api.signature_runner(graph->interpreter, signature) : NULL;
    if (!graph->runner || api.allocate(graph->runner) != OK) fail("TFLite %s cannot load %s", api.version(), file);
    return graph;
}

void graph_close(struct graph *graph) {
    api.runner_delete(graph->runner);
    api.interpreter_delete(graph->interpreter);
    api.xnnpack_delete(graph->delegate);
    api.model_delete(graph->model);
    free(graph);
}

void graph_set_input(struct graph *graph, const char *name, const void *data, size_t bytes) {
    Tensor *tensor = api.input(graph->runner, name);
    if (!tensor) fail("%s has no input %s", graph->file, name);
    if (api.bytes(tensor) != bytes) {
        fail("input %s of %s takes %zu bytes, and %zu were prepared", name, graph->file, api.bytes(tensor), bytes);
    }
    if (api.copy_from(tensor, data, bytes) != OK) fail("input %s of %s cannot be filled", name, graph->file);
}

void graph_fill(struct graph *graph, const struct graph_plan *plan) {
    for (int i = 0; i < plan->input_count; i++) {
        graph_set_input(graph, plan->inputs[i].name, plan->inputs[i].data, plan->inputs[i].bytes);
    }
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
