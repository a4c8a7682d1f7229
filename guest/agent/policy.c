/*
 * AppArmor: one policy by one name. The workload enters it before its first program is executed, in the template or in
 * the clone, and cannot leave it. A clone's own policy replaces it: the kernel holds every thread that is under the
 * name to the new one from that moment, also those of a runtime that has been running since the template, and asks
 * nothing of them. The host compiles the text for exactly what this kernel says it can enforce.
 */
#include "agent.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define APPARMOR "/sys/kernel/security/apparmor"

enum { FEATURES_BYTES = 16 * 1024, FEATURES_DEPTH_MAX = 5, PATH_BYTES = 256, ENTRIES_MAX = 64, NAME_BYTES = 48 };

/* ---- what the kernel can do -------------------------------------------------------------------------------------- */

static char features[FEATURES_BYTES];
static size_t used;

static void append(const char *text) {
    size_t length = strlen(text);
    if (length >= sizeof features - used) fault(E_TEMPLATE_BUILD, "AppArmor's features are too long");
    memcpy(features + used, text, length + 1);
    used += length;
}

/* A folder is `name {`, what is in it, and `}`; a file the same around its line. By name: the same for one kernel. */
static void append_features(const char *folder, unsigned depth) {
    char names[ENTRIES_MAX][NAME_BYTES];
    unsigned count = 0;
    DIR *entries = opendir(folder);
    if (entries == NULL || depth > FEATURES_DEPTH_MAX) fault(E_TEMPLATE_BUILD, "%s: %s", folder, strerror(errno));
    for (struct dirent *entry; (entry = readdir(entries)) != NULL;) {
        if (entry->d_name[0] == '.') continue;
        if (count == ENTRIES_MAX || strlen(entry->d_name) >= NAME_BYTES) fault(E_TEMPLATE_BUILD, "%s is large", folder);
        unsigned at = count++;
        for (; at > 0 && strcmp(names[at - 1], entry->d_name) > 0; at--) strcpy(names[at], names[at - 1]);
        strcpy(names[at], entry->d_name);
    }
    closedir(entries);
    for (unsigned i = 0; i < count; i++) {
        char path[PATH_BYTES], value[2048];
        struct stat found;
        snprintf(path, sizeof path, "%.180s/%.47s", folder, names[i]);
        if (stat(path, &found) != 0) fault(E_TEMPLATE_BUILD, "%s: %s", path, strerror(errno));
        append(names[i]);
        append(" {");
        if (S_ISDIR(found.st_mode)) append_features(path, depth + 1);
        else if (read_text(path, value, sizeof value) >= 0) append(value);
        else fault(E_TEMPLATE_BUILD, "%s: %s", path, strerror(errno));
        append("}\n");
    }
}

const char *policy_features(void) {
    if (access(APPARMOR "/.replace", W_OK) == 0) append_features(APPARMOR "/features", 0);
    return features;
}

/* ---- the policy -------------------------------------------------------------------------------------------------- */

void load_policy(struct field policy) {
    int file = open(APPARMOR "/.replace", O_WRONLY | O_CLOEXEC);
    /* All of it in one write, or the kernel takes the beginning for the whole. */
    if (file < 0 || write(file, policy.value, policy.length) != (ssize_t)policy.length) {
        fault(E_CLONE_FAILED, "policy: %s", strerror(errno));
    }
    close(file);
}

const char *loaded_policy(void) {
    static char said[128];
    char path[PATH_BYTES], name[NAME_BYTES] = "", list[128];
    if (read_text(APPARMOR "/profiles", list, sizeof list) < 0) return "none";
    if (strcmp(list, POLICY_NAME " (enforce)\n") != 0) return "not this one alone";
    DIR *entries = opendir(APPARMOR "/policy/profiles");
    if (entries == NULL) return "none";
    for (struct dirent *entry; (entry = readdir(entries)) != NULL;) {
        if (strncmp(entry->d_name, POLICY_NAME ".", sizeof POLICY_NAME) != 0) continue;
        snprintf(name, sizeof name, "%.40s", entry->d_name);
    }
    closedir(entries);
    snprintf(path, sizeof path, APPARMOR "/policy/profiles/%s/raw_sha1", name);
    if (read_text(path, said, sizeof said) < 0) return "without a digest";
    said[strcspn(said, "\n")] = '\0';
    return said;
}
