#include "preload/config_apply.h"

#include "preload/config.h"
#include "sampler/heap.h"
#include "sampler/lock.h"
#include "sampler/rt/log.h"

static const char *change(const struct pep_setting_change *changes, size_t count,
                          char sentence[PEP_SETTING_SENTENCE_BYTES]) {
    const uint64_t lock_rate = pep_config.lock_rate;
    const uint32_t heap_rate = pep_config.heap_rate;
    const char *refused = pep_config_change(changes, count, sentence);
    if (refused)
        return refused;
    pep_log_init(pep_config.log);
    if (pep_config.lock_rate != lock_rate)
        (void)pep_lock_init(pep_config.lock_rate);
    if (pep_config.heap_rate != heap_rate && pep_heap_set_rate(pep_config.heap_rate) == 0)
        pep_server_heap_varies();
    pep_server_change(&(struct pep_server_options){
        .hz = pep_config.hz, .service = pep_config.service, .token = pep_config.token});
    return NULL;
}

const struct pep_server_settings pep_config_settings = {.get = pep_config_get, .change = change};
