/* A harmless example: a script that downloads something and runs it at once. */
rule download_and_run {
    strings:
        $fetch = /\b(curl|wget)\b[^\n]{0,200}\|\s*(ba)?sh\b/
    condition:
        $fetch
}
