/* One message of a chain in one call: its keys (HMAC-SHA256), its header and AES-256-GCM.
 *
 * The Python code in message_step.py specifies it: same arguments, same bytes. Rules:
 *
 * 1. OpenSSL's EVP interface does all cryptography, the constant-time comparison of tags included.
 * 2. No plaintext is returned unless its tag fits: what was decrypted is wiped first.
 * 3. After a call no key is left in a buffer of this file or in an OpenSSL context. What is
 *    returned are bytes objects, as from the Python code.
 * 4. The GIL is held throughout: a call takes about 2 microseconds, and `mac` is shared.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <limits.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/evp.h>

#ifdef Py_GIL_DISABLED
#error "without a GIL two threads would share one MAC context"
#endif

#define KEY_SIZE 32
#define TAG_SIZE 16
#define HEADER_SIZE 56
#define DATA(object) ((unsigned char *)PyBytes_AS_STRING(object))
#define HAS_SIZE(object, size) (PyBytes_Check(object) && PyBytes_GET_SIZE(object) == (size))

static EVP_MAC_CTX *mac;
static EVP_CIPHER *cipher;

/* Write the message key and the next chain key, one behind the other. */
static int
step_chain(const unsigned char *chain_key, unsigned char *keys)
{
    static const unsigned char no_key[KEY_SIZE];
    int done = EVP_MAC_init(mac, chain_key, KEY_SIZE, NULL)
        && EVP_MAC_update(mac, (const unsigned char *)"\x01", 1)
        && EVP_MAC_final(mac, keys, NULL, KEY_SIZE)
        && EVP_MAC_init(mac, NULL, 0, NULL) /* the same key again */
        && EVP_MAC_update(mac, (const unsigned char *)"\x02", 1)
        && EVP_MAC_final(mac, keys + KEY_SIZE, NULL, KEY_SIZE);
    return EVP_MAC_init(mac, no_key, KEY_SIZE, NULL) && done; /* wipes the chain key */
}

/* Write Header.encode(); if a number doesn't fit its field, raise what that raises. */
static int
encode_header(PyObject *header, unsigned char *target)
{
    memcpy(target, DATA(PyTuple_GET_ITEM(header, 0)), KEY_SIZE);
    target += KEY_SIZE;
    for (int field = 1; field <= 4; field++) {
        PyObject *number = PyTuple_GET_ITEM(header, field);
        uint64_t value = field < 4 ? PyLong_AsUnsignedLongLong(number)
                                   : (uint64_t)PyLong_AsLongLong(number);
        if (PyErr_Occurred() || (field < 3 && value > UINT32_MAX)) {
            PyErr_Clear();
            Py_XDECREF(PyObject_CallMethod(header, "encode", NULL));
            return PyErr_Occurred() ? 0 : PyErr_BadArgument();
        }
        for (int shift = field < 3 ? 24 : 56; shift >= 0; shift -= 8) {
            *target++ = (unsigned char)(value >> shift);
        }
    }
    return 1;
}

static PyObject *
process(PyObject *const *given, Py_ssize_t count, int sealing)
{
    unsigned char header[HEADER_SIZE], keys[2 * KEY_SIZE];
    if (count != 5 || !HAS_SIZE(given[0], KEY_SIZE) || !PyBytes_Check(given[1])
        || !PyTuple_Check(given[2]) || PyTuple_GET_SIZE(given[2]) != 5
        || !HAS_SIZE(PyTuple_GET_ITEM(given[2], 0), KEY_SIZE) || !HAS_SIZE(given[3], 12)
        || !PyBytes_Check(given[4]) || (!sealing && PyBytes_GET_SIZE(given[4]) < TAG_SIZE)) {
        return PyErr_Format(PyExc_TypeError, "expected chain key, data, header, nonce and text");
    }
    Py_ssize_t length = PyBytes_GET_SIZE(given[4]) - (sealing ? 0 : TAG_SIZE);
    if (length > INT_MAX - TAG_SIZE || PyBytes_GET_SIZE(given[1]) > INT_MAX) {
        return PyErr_Format(PyExc_OverflowError, "a message of 2 GiB or more");
    }
    PyObject *text, *answer;
    if (!encode_header(given[2], header)
        || !(text = PyBytes_FromStringAndSize(NULL, length + (sealing ? TAG_SIZE : 0)))) {
        return NULL;
    }
    EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
    int size, fits = 0;
    int done = context != NULL && step_chain(DATA(given[0]), keys)
        && EVP_CipherInit_ex2(context, cipher, keys, DATA(given[3]), sealing, NULL)
        && EVP_CipherUpdate(context, NULL, &size, DATA(given[1]), (int)PyBytes_GET_SIZE(given[1]))
        && EVP_CipherUpdate(context, NULL, &size, header, HEADER_SIZE)
        && EVP_CipherUpdate(context, DATA(text), &size, DATA(given[4]), (int)length)
        && (sealing || EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_SET_TAG, TAG_SIZE,
                                           DATA(given[4]) + length) > 0);
    if (done) {
        fits = EVP_CipherFinal_ex(context, DATA(text) + length, &size) > 0;
        done = !sealing || (fits && EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_GET_TAG, TAG_SIZE,
                                                        DATA(text) + length) > 0);
    }
    EVP_CIPHER_CTX_free(context); /* wipes the message key */
    if (done && fits) {
        Py_ssize_t key_size = KEY_SIZE;
        answer = Py_BuildValue("(Oy#y#)", text, keys, key_size, keys + KEY_SIZE, key_size);
    }
    else {
        ERR_clear_error(); /* the queue is shared with Python's ssl module */
        answer = done ? Py_NewRef(Py_None) : PyErr_Format(PyExc_RuntimeError, "OpenSSL failed");
    }
    if (answer == NULL || answer == Py_None) OPENSSL_cleanse(DATA(text), (size_t)length);
    Py_DECREF(text);
    OPENSSL_cleanse(keys, sizeof(keys));
    return answer;
}

static PyObject *
seal_message(PyObject *Py_UNUSED(module), PyObject *const *given, Py_ssize_t count)
{
    return process(given, count, 1);
}

static PyObject *
open_message(PyObject *Py_UNUSED(module), PyObject *const *given, Py_ssize_t count)
{
    return process(given, count, 0);
}

static PyMethodDef methods[] = {
    {"seal_message", (PyCFunction)(void (*)(void))seal_message, METH_FASTCALL, NULL},
    {"open_message", (PyCFunction)(void (*)(void))open_message, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_message_step", NULL, -1, methods};

PyMODINIT_FUNC
PyInit__message_step(void)
{
    OSSL_PARAM digest[] = {OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, "SHA256", 0),
                           OSSL_PARAM_construct_end()};
    EVP_MAC *hmac = EVP_MAC_fetch(NULL, "HMAC", NULL);
    mac = hmac == NULL ? NULL : EVP_MAC_CTX_new(hmac);
    EVP_MAC_free(hmac); /* the context keeps a reference */
    cipher = EVP_CIPHER_fetch(NULL, "AES-256-GCM", NULL);
    if (mac == NULL || cipher == NULL || !EVP_MAC_CTX_set_params(mac, digest)) {
        ERR_clear_error();
        return PyErr_Format(PyExc_ImportError, "no HMAC-SHA256 or AES-256-GCM in libcrypto");
    }
    return PyModule_Create(&definition);
}
