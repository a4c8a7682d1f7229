/*
 * Reseeds the random generators that OpenSSL keeps in the memory of a warmed Node process.
 *
 * Clones of one template start with the same generator state, and OpenSSL reseeds it only on fork, after many requests
 * or after minutes: two clones would issue the same keys. Each generator is reseeded from the operating system (which
 * the agent has reseeded from the host) and mixes in fresh bytes of ours. Those of other threads derive from the
 * primary one and reseed themselves when they see that it was. RAND_poll() reseeds, too (measured with clones); the
 * calls used here also say for each generator whether it worked, and a runtime that is not renewed must not go on.
 *
 * The node binary exports everything used here, so no headers are needed: these are its stable C interfaces.
 */
#define _GNU_SOURCE
#include <stddef.h>
#include <string.h>
#include <sys/random.h>

typedef struct napi_env__ *napi_env;
typedef struct napi_value__ *napi_value;
typedef struct napi_callback_info__ *napi_callback_info;
typedef napi_value (*napi_callback)(napi_env, napi_callback_info);
int napi_create_function(napi_env, const char *name, size_t length, napi_callback, void *data, napi_value *result);
int napi_throw_error(napi_env, const char *code, const char *message);

typedef struct evp_rand_ctx_st EVP_RAND_CTX;
EVP_RAND_CTX *RAND_get0_primary(void *context);
EVP_RAND_CTX *RAND_get0_public(void *context);
EVP_RAND_CTX *RAND_get0_private(void *context);
int EVP_RAND_reseed(EVP_RAND_CTX *, int prediction_resistance, const unsigned char *entropy, size_t entropy_bytes,
                    const unsigned char *additional, size_t additional_bytes);

enum { SEED_BYTES = 32 };

static int reseed(EVP_RAND_CTX *generator) {
    unsigned char seed[SEED_BYTES];
    if (generator == NULL || getrandom(seed, sizeof seed, 0) != (ssize_t)sizeof seed) return 0;
    int done = EVP_RAND_reseed(generator, 0, NULL, 0, seed, sizeof seed);
    explicit_bzero(seed, sizeof seed);
    return done;
}

static napi_value renew(napi_env env, napi_callback_info info) {
    (void)info;
    if (!reseed(RAND_get0_primary(NULL)) || !reseed(RAND_get0_public(NULL)) || !reseed(RAND_get0_private(NULL))) {
        napi_throw_error(env, "ERR_RESEED", "OpenSSL's generators could not be reseeded");
    }
    return NULL;
}

__attribute__((visibility("default"))) napi_value napi_register_module_v1(napi_env env, napi_value exports) {
    napi_value function;
    if (napi_create_function(env, "renew", 5, renew, NULL, &function) != 0) return exports;
    return function;
}
