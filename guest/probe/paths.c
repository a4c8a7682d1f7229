/* Where paths lead in an image: what a build above it has to know, and what the host does not read from its bytes. */
#define _GNU_SOURCE

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "probe.h"

static const char *kind_of(const char *path) {
    struct stat found;
    if (stat(path, &found) != 0) return "none";
    if (S_ISDIR(found.st_mode)) return "folder";
    return S_ISREG(found.st_mode) && access(path, X_OK) == 0 ? "program" : "file";
}

/* Links followed as far as there is something; what is not there yet is added as it is written. */
static void tell_path(const char *path, bool first) {
    char there[PATH_MAX], real[PATH_MAX];
    struct stat found;
    size_t length = strlen(path);
    snprintf(there, sizeof there, "%s", path);
    while (realpath(length == 0 ? "/" : there, real) == NULL) {
        if (errno != ENOENT || length == 0) break;
        while (length > 0 && there[length - 1] != '/') length--;
        there[length > 0 ? --length : 0] = '\0';
    }
    bool hidden = length > 0 && realpath(there, real) == NULL;
    const char *kind = hidden ? errno == ENOTDIR ? "file" : "hidden" : kind_of(path);
    if (hidden || length == 0) strcpy(real, length == 0 && !hidden ? "" : "/");
    if (strcmp(real, "/") == 0 && !hidden) real[0] = '\0';
    printf("%s{\"kind\":\"%s\",\"modes\":[", first ? "" : ",", kind);
    const char *comma = "";
    for (char *at = hidden ? NULL : strchr(real, '/'); at != NULL;) {
        char *next = strchr(at + 1, '/');
        if (next != NULL) *next = '\0';
        if (stat(real, &found) == 0 && S_ISDIR(found.st_mode)) {
            printf("%s%u", comma, (unsigned)found.st_mode & 07777);
            comma = ",";
        }
        if (next != NULL) *next = '/';
        at = next;
    }
    char whole[2 * PATH_MAX];
    snprintf(whole, sizeof whole, "%s%s", real, hidden ? "" : path + length);
    printf("],\"real\":");
    json_text(whole[0] == '\0' ? "/" : whole);
    putchar('}');
}

void paths(FILE *file) {
    char line[PATH_MAX];
    printf("{\"paths\":[");
    bool first = true;
    while (fgets(line, sizeof line, file) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        tell_path(line, first);
        first = false;
    }
    printf("]}");
}
