/*
 * Runs the agent's codec over the golden frames of the host: every case must give the violation that the host gives,
 * and every truncation of every case must end without one that the whole case does not have, without a crash and
 * without a read beyond the bytes. Built with the address and undefined behaviour sanitizers, each input in a block of
 * its own length so that one byte too far is found.
 *
 * Usage: golden FOLDER   (reads FOLDER/index.tsv: name, sender, expected nonce, violation, number of good frames)
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../agent/frame.h"
#include "../agent/message.h"

struct outcome {
    violation wrong; /* NULL: none */
    bool incomplete;
    unsigned frames;
};

static violation check_payload(const struct frame *frame, const uint8_t *payload) {
    struct end end;
    switch (frame->type) {
    case DATA:
    case CREDIT:
    case ACCEPT:
    case QUERY:
    case ANSWER:
        return NULL;
    case OPEN:
        return open_check(payload);
    case RESET:
        return reset_check(payload);
    case END:
        return end_read(payload, &end);
    default:
        return message_check(frame->type, payload, frame->length);
    }
}

/* Readers must survive whatever the check lets through. */
static void read_everything(const struct frame *frame, const uint8_t *payload) {
    static struct texts texts;
    static char *list[FIELDS_MAX + 1];
    struct message message = {payload, frame->length};
    char text[64];
    for (uint16_t tag = 1; tag <= 15; tag++) {
        texts.used = 0;
        (void)message_u64(message, tag);
        (void)message_text(message, tag, text, sizeof text);
        (void)message_list(message, tag, &texts, list);
    }
}

static struct outcome decode(enum side from, uint64_t nonce, const uint8_t *bytes, size_t length) {
    struct frame_counter counter = {from, nonce, 0};
    struct outcome outcome = {NULL, false, 0};
    size_t at = 0;
    while (at < length) {
        if (length - at < FRAME_HEADER_BYTES) {
            outcome.incomplete = true;
            return outcome;
        }
        struct frame frame;
        outcome.wrong = frame_read_header(&counter, bytes + at, &frame);
        if (outcome.wrong != NULL) return outcome;
        at += FRAME_HEADER_BYTES;
        if (length - at < frame.length) {
            outcome.incomplete = true;
            return outcome;
        }
        outcome.wrong = check_payload(&frame, bytes + at);
        if (outcome.wrong != NULL) return outcome;
        if (frame.stream == 0) read_everything(&frame, bytes + at);
        at += frame.length;
        outcome.frames++;
    }
    return outcome;
}

static const char *name_of(struct outcome outcome) {
    return outcome.wrong != NULL ? outcome.wrong : outcome.incomplete ? "incomplete" : "none";
}

static uint8_t *read_file(const char *folder, const char *name, size_t *length) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s.bin", folder, name);
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        perror(path);
        exit(2);
    }
    fseek(file, 0, SEEK_END);
    *length = (size_t)ftell(file);
    rewind(file);
    uint8_t *bytes = malloc(*length + 1);
    if (bytes == NULL || fread(bytes, 1, *length, file) != *length) exit(2);
    fclose(file);
    return bytes;
}

/* Encodes what was decoded and expects the same header again. */
static bool header_survives(enum side from, uint64_t nonce, const uint8_t *bytes) {
    struct frame_counter counter = {from, nonce, 0};
    struct frame frame;
    uint8_t again[FRAME_HEADER_BYTES];
    if (frame_read_header(&counter, bytes, &frame) != NULL) return true;
    counter.sequence = frame.sequence;
    frame_write_header(&counter, again, frame.type, frame.stream, frame.length);
    return memcmp(again, bytes, sizeof again) == 0;
}

int main(int argc, char **argv) {
    if (argc != 2) return 2;
    char path[512];
    snprintf(path, sizeof path, "%s/index.tsv", argv[1]);
    FILE *index = fopen(path, "r");
    if (index == NULL) {
        perror(path);
        return 2;
    }
    unsigned cases = 0, failures = 0;
    unsigned long truncations = 0;
    char name[128], sender[16], expected[64];
    uint64_t nonce;
    unsigned frames;
    while (fscanf(index, "%127s\t%15s\t%" SCNx64 "\t%63s\t%u", name, sender, &nonce, expected, &frames) == 5) {
        enum side from = strcmp(sender, "guest") == 0 ? FROM_GUEST : FROM_HOST;
        size_t length;
        uint8_t *bytes = read_file(argv[1], name, &length);
        struct outcome whole = decode(from, nonce, bytes, length);
        if (strcmp(name_of(whole), expected) != 0 || whole.frames != frames || !header_survives(from, nonce, bytes)) {
            printf("%s: %s after %u frames, expected %s after %u\n", name, name_of(whole), whole.frames, expected,
                   frames);
            failures++;
        }
        /* A large payload is zeros: cutting it everywhere would say the same thing 60,000 times. */
        size_t step = length > 8192 ? 97 : 1;
        for (size_t cut = 0; cut < length; cut += step, truncations++) {
            uint8_t *part = malloc(cut == 0 ? 1 : cut);
            if (part == NULL) return 2;
            memcpy(part, bytes, cut);
            struct outcome outcome = decode(from, nonce, part, cut);
            if ((outcome.wrong != NULL && strcmp(outcome.wrong, expected) != 0) || outcome.frames > whole.frames) {
                printf("%s cut at %zu: %s after %u frames\n", name, cut, name_of(outcome), outcome.frames);
                failures++;
            }
            free(part);
        }
        free(bytes);
        cases++;
    }
    fclose(index);
    printf("%u cases, %lu truncations, %u failures\n", cases, truncations, failures);
    return failures == 0 && cases > 0 ? 0 : 1;
}
