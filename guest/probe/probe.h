/* What the parts of the probe share. */
#ifndef MAYFLY_PROBE_H
#define MAYFLY_PROBE_H

#include <stdio.h>

void json_text(const char *text);
/* One JSON text about each line of the file. */
void paths(FILE *file);

#endif
