/* Android's C library as far as TFLite's JNI library wants it, on glibc (x86-64 Linux).
 *
 * The library out of the AAR is loaded as it is, byte for byte: what it needs is libc.so, libm.so, libdl.so and liblog.so, with
 * symbols of the version LIBC, and that is what is built here. Most of the symbols are glibc's own under that version. What
 * differs between the two is below: FILE, sysconf's numbers, strerror_r, and what glibc does not have.
 *
 * Answers of the library are what it computes; its latency is too, as far as this machine is like a phone, which it is not.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* `name` is exported as name@LIBC and jumps to glibc's function of that name, whose arguments and result are the same. */
#define SAME(name)                                                                                                               \
    __asm__(".text\n.globl bionic_" #name "\n.type bionic_" #name ",@function\nbionic_" #name ":\n\tjmp *" #name                 \
            "@GOTPCREL(%rip)\n.size bionic_" #name ",.-bionic_" #name "\n.symver bionic_" #name "," #name "@LIBC\n");
/* The function bionic_`name` below is exported as name@LIBC. */
#define OWN(name) __asm__(".symver bionic_" #name "," #name "@LIBC\n");

/* memory and strings */
SAME(bsearch) SAME(calloc) SAME(free) SAME(malloc) SAME(memalign) SAME(memchr) SAME(memcmp) SAME(memcpy) SAME(memmove)
SAME(__memmove_chk) SAME(memset) SAME(posix_memalign) SAME(qsort) SAME(realloc) SAME(snprintf) SAME(strcmp) SAME(strerror)
SAME(strlen) SAME(strncmp) SAME(strncpy) SAME(strtod) SAME(strtol) SAME(strtoll_l) SAME(strtoull_l) SAME(vasprintf)
SAME(vsnprintf) SAME(__vsnprintf_chk) SAME(freelocale) SAME(newlocale)
/* files; a FILE* that fopen gave is glibc's, and may go back to glibc */
SAME(close) SAME(fclose) SAME(fileno) SAME(flock) SAME(fopen) SAME(fread) SAME(fstat) SAME(fsync) SAME(madvise) SAME(mmap)
SAME(mprotect) SAME(mremap) SAME(munmap) SAME(open) SAME(read) SAME(__read_chk) SAME(rename) SAME(write)
/* threads: sizes of the types and the values that initialise them are the same on 64-bit processors */
SAME(pthread_cond_broadcast) SAME(pthread_cond_destroy) SAME(pthread_cond_init) SAME(pthread_cond_signal)
SAME(pthread_cond_wait) SAME(pthread_create) SAME(pthread_equal) SAME(pthread_getspecific) SAME(pthread_join)
SAME(pthread_key_create) SAME(pthread_key_delete) SAME(pthread_mutex_destroy) SAME(pthread_mutex_init)
SAME(pthread_mutex_lock) SAME(pthread_mutex_unlock) SAME(pthread_once) SAME(pthread_rwlock_rdlock)
SAME(pthread_rwlock_unlock) SAME(pthread_rwlock_wrlock) SAME(pthread_self) SAME(pthread_setspecific)
/* the process and its libraries */
SAME(abort) SAME(clock_gettime) SAME(closelog) SAME(__cxa_atexit) SAME(__cxa_finalize) SAME(dlclose) SAME(dlerror)
SAME(dl_iterate_phdr) SAME(dlopen) SAME(dlsym) SAME(exit) SAME(getenv) SAME(getpagesize) SAME(getuid) SAME(nanosleep)
SAME(openlog) SAME(__stack_chk_fail) SAME(syscall) SAME(syslog) SAME(time)
/* mathematics */
SAME(atan2) SAME(atan2f) SAME(cos) SAME(cosf) SAME(erfcf) SAME(exp) SAME(expf) SAME(expm1f) SAME(fmodf) SAME(frexp)
SAME(hypot) SAME(hypotf) SAME(ldexp) SAME(log) SAME(log1p) SAME(logf) SAME(nanf) SAME(pow) SAME(powf) SAME(sincos)
SAME(sincosf) SAME(sinf) SAME(tanhf)

/* --- standard streams: three FILEs of 152 bytes in bionic -------------------------------------------- */

enum { BIONIC_FILE_BYTES = 152 };
char bionic___sF[3 * BIONIC_FILE_BYTES];
OWN(__sF)

static FILE *stream(void *file) {
    FILE *streams[] = {stdin, stdout, stderr};
    char *at = file;
    if (at < bionic___sF || at >= bionic___sF + sizeof bionic___sF) return file;
    return streams[(at - bionic___sF) / BIONIC_FILE_BYTES];
}

int bionic_fprintf(void *file, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    int written = vfprintf(stream(file), format, arguments);
    va_end(arguments);
    return written;
}
OWN(fprintf)

int bionic_vfprintf(void *file, const char *format, va_list arguments) { return vfprintf(stream(file), format, arguments); }
OWN(vfprintf)

int bionic_fputc(int character, void *file) { return fputc(character, stream(file)); }
OWN(fputc)

size_t bionic_fwrite(const void *data, size_t size, size_t count, void *file) { return fwrite(data, size, count, stream(file)); }
OWN(fwrite)

int bionic_fflush(void *file) { return fflush(file ? stream(file) : NULL); }
OWN(fflush)

/* --- the same name, other numbers or another result ---------------------------------------------------- */

long bionic_sysconf(int name) {
    switch (name) {
    case 0x27:
    case 0x28:
        return sysconf(_SC_PAGESIZE);
    case 0x60:
        return sysconf(_SC_NPROCESSORS_CONF);
    case 0x61:
        return sysconf(_SC_NPROCESSORS_ONLN);
    default:
        fprintf(stderr, "bionic_shim: sysconf(0x%x) is not known here: add it\n", name);
        errno = EINVAL;
        return -1;
    }
}
OWN(sysconf)

extern int __xpg_strerror_r(int error, char *text, size_t size);
int bionic_strerror_r(int error, char *text, size_t size) { return __xpg_strerror_r(error, text, size); }
OWN(strerror_r)

/* --- what glibc does not have -------------------------------------------------------------------------- */

int *bionic___errno(void) { return &errno; }
OWN(__errno)

size_t bionic___strlen_chk(const char *text, size_t room) {
    size_t length = strlen(text);
    if (length >= room) abort();
    return length;
}
OWN(__strlen_chk)

int bionic___open_2(const char *path, int flags) { return open(path, flags); }
OWN(__open_2)

/* Without Android's version the JNI library does not even look for XNNPACK, and says nothing of it: kernels 10 times as slow. */
int bionic___system_property_get(const char *name, char *value) {
    const char *set = strcmp(name, "ro.build.version.sdk") ? "" : "34";
    strcpy(value, set);
    return (int)strlen(set);
}
OWN(__system_property_get)

void bionic_android_set_abort_message(const char *message) { fprintf(stderr, "%s\n", message); }
OWN(android_set_abort_message)

/* liblog has no symbol versions. Warnings and worse go to stderr, and all else too where ANDROID_LOG is set. */
enum { ANDROID_LOG_WARN = 5 };
int __android_log_vprint(int priority, const char *tag, const char *format, va_list arguments) {
    if (priority < ANDROID_LOG_WARN && !getenv("ANDROID_LOG")) return 0;
    fprintf(stderr, "%s: ", tag);
    int written = vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    return written;
}
