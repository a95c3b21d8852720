// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/access/test_certificate.h"

#include <openssl/bio.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

namespace millrace {
namespace {

std::string TextOf(BIO* bytes) {
  char* data = nullptr;
  const long size = BIO_get_mem_data(bytes, &data);
  std::string text(data, static_cast<size_t>(size));
  BIO_free(bytes);
  return text;
}

}  // namespace

TestCertificate MakeTestCertificate(int serial, absl::Time not_after) {
  EVP_PKEY* const key = EVP_EC_gen("P-256");
  X509* const certificate = X509_new();
  ASN1_INTEGER_set(X509_get_serialNumber(certificate), serial);
  ASN1_TIME_set(X509_getm_notBefore(certificate), 0);
  ASN1_TIME_set(X509_getm_notAfter(certificate), absl::ToTimeT(not_after));
  X509_set_pubkey(certificate, key);
  X509_sign(certificate, key, EVP_sha256());
  TestCertificate made;
  BIO* bytes = BIO_new(BIO_s_mem());
  PEM_write_bio_X509(bytes, certificate);
  made.certificate = TextOf(bytes);
  bytes = BIO_new(BIO_s_mem());
  PEM_write_bio_PrivateKey(bytes, key, nullptr, nullptr, 0, nullptr, nullptr);
  made.key = TextOf(bytes);
  X509_free(certificate);
  EVP_PKEY_free(key);
  return made;
}

}  // namespace millrace
