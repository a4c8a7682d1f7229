/*
 * Drivers that this machine needs are modules of the distribution's kernel. The initramfs carries them with the order
 * in which each finds what it depends on.
 */
#include "agent.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MODULES_PATH "/modules/"

static void load_module(const char *name) {
    char path[160];
    snprintf(path, sizeof path, MODULES_PATH "%s", name);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) fault(E_TEMPLATE_BUILD, "module %s: %s", name, strerror(errno));
    if (syscall(SYS_finit_module, file, "", 0) != 0 && errno != EEXIST) {
        fault(E_TEMPLATE_BUILD, "module %s: %s", name, strerror(errno));
    }
    close(file);
    unlink(path);
}

static void load_list(const char *list) {
    char order[4096];
    if (read_text(list, order, sizeof order) < 0) fault(E_TEMPLATE_BUILD, "%s: %s", list, strerror(errno));
    char *rest = order;
    for (char *name; (name = strsep(&rest, "\n")) != NULL;) {
        if (*name != '\0') load_module(name);
    }
}

void load_modules(void) {
    load_list(MODULES_PATH "load-order");
    load_list(MODULES_PATH "load-order.net");
}
