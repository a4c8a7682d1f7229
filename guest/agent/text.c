#include "agent.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

ssize_t read_text(const char *path, char *text, size_t room) {
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return -1;
    size_t length = 0;
    ssize_t got = 0;
    while (length < room - 1 && (got = read(file, text + length, room - 1 - length)) > 0) length += (size_t)got;
    int saved = errno;
    close(file);
    errno = saved;
    text[length] = '\0';
    return got < 0 ? -1 : (ssize_t)length;
}

static bool write_to(int file, const char *text) {
    if (file < 0) return false;
    size_t length = strlen(text);
    bool written = write(file, text, length) == (ssize_t)length;
    int saved = errno;
    close(file);
    errno = saved;
    return written;
}

bool write_text(const char *path, const char *text) {
    return write_to(open(path, O_WRONLY | O_CLOEXEC), text);
}

bool make_text(const char *path, const char *text, mode_t mode) {
    return write_to(open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, mode), text);
}

const char *value_after(const char *text, const char *name) {
    size_t length = strlen(name);
    for (const char *line = text; line != NULL; line = strchr(line, '\n')) {
        if (*line == '\n') line++;
        if (strncmp(line, name, length) != 0) continue;
        const char *value = line + length;
        if (*value == ':') value++;
        else if (*value != ' ' && *value != '\t') continue;
        while (*value == ' ' || *value == '\t') value++;
        return value;
    }
    return NULL;
}

uint64_t number_after(const char *text, const char *name) {
    const char *value = value_after(text, name);
    return value == NULL ? 0 : strtoull(value, NULL, 10);
}

uint64_t monotonic_millis(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}
