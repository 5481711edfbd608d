/* The version, said once. */
#ifndef PEP_HTTP_VERSION_H
#define PEP_HTTP_VERSION_H

#define PEP_VERSION "0.1.0"

#endif
