/* A disk whose fsync takes 3 ms, for figures on a machine whose own takes a tenth of that:
 *
 *   cc -shared -fPIC -O2 -o target/slow_disk.so benches/slow_disk.c
 *   LD_PRELOAD=$PWD/target/slow_disk.so cargo bench --bench figures -- --quick
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <unistd.h>

int fdatasync(int file) {
    static int (*real)(int);
    if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    int done = real(file);
    usleep(2700);
    return done;
}
