// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/access/server_certificate.h"

#include <openssl/bio.h>
#include <openssl/bn.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <ctime>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "server/base/status.h"

namespace millrace {
namespace {

template <auto kFree>
struct Free {
  template <typename T>
  void operator()(T* object) const {
    kFree(object);
  }
};
using Certificate = std::unique_ptr<X509, Free<X509_free>>;
using Key = std::unique_ptr<EVP_PKEY, Free<EVP_PKEY_free>>;
using Bytes = std::unique_ptr<BIO, Free<BIO_free_all>>;

Bytes BytesOf(const std::string& text) {
  return Bytes(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
}

// An encrypted key is refused instead of asked for on the terminal.
int NoPassword(char* /*to*/, int /*size*/, int /*writing*/, void* /*data*/) { return -1; }

absl::StatusOr<std::vector<Certificate>> CertificatesIn(const std::string& text, const char* what) {
  const Bytes bytes = BytesOf(text);
  std::vector<Certificate> certificates;
  while (Certificate next{PEM_read_bio_X509(bytes.get(), nullptr, NoPassword, nullptr)}) {
    certificates.push_back(std::move(next));
  }
  const bool whole = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
  ERR_clear_error();
  if (certificates.empty() || !whole) {
    return absl::InvalidArgumentError(absl::StrCat(
        what, certificates.empty() ? " holds no certificate in PEM, '-----BEGIN CERTIFICATE-----'"
                                   : " holds a certificate that can't be read, after others"));
  }
  return certificates;
}

std::string SerialOf(const X509& certificate) {
  const std::unique_ptr<BIGNUM, Free<BN_free>> number(
      ASN1_INTEGER_to_BN(X509_get0_serialNumber(&certificate), nullptr));
  char* const text = number != nullptr ? BN_bn2hex(number.get()) : nullptr;
  std::string serial = text != nullptr ? absl::AsciiStrToLower(text) : "";
  OPENSSL_free(text);
  return serial;
}

absl::Time EndOf(const X509& certificate) {
  std::tm end = {};
  if (ASN1_TIME_to_tm(X509_get0_notAfter(&certificate), &end) != 1) return absl::InfinitePast();
  return absl::FromTM(end, absl::UTCTimeZone());
}

}  // namespace

absl::StatusOr<ServerCertificate> CheckCertificate(std::string chain, std::string key,
                                                   std::optional<std::string> client_authorities) {
  MILLRACE_ASSIGN_OR_RETURN(const std::vector<Certificate> certificates,
                            CertificatesIn(chain, "the certificate's file"));
  const Bytes key_bytes = BytesOf(key);
  const Key parsed(PEM_read_bio_PrivateKey(key_bytes.get(), nullptr, NoPassword, nullptr));
  ERR_clear_error();
  if (parsed == nullptr) {
    return absl::InvalidArgumentError(
        "the key's file holds no private key in PEM, or one that needs a password");
  }
  const bool belongs = X509_check_private_key(certificates[0].get(), parsed.get()) == 1;
  ERR_clear_error();
  if (!belongs) {
    return absl::InvalidArgumentError(
        "the key is not that of the certificate, which is the first in its file");
  }
  if (client_authorities) {
    MILLRACE_RETURN_IF_ERROR(
        CertificatesIn(*client_authorities, "the file of the clients' authority").status());
  }
  ServerCertificate checked;
  checked.serial = SerialOf(*certificates[0]);
  checked.not_after = EndOf(*certificates[0]);
  checked.chain = std::move(chain);
  checked.key = std::move(key);
  checked.client_authorities = std::move(client_authorities).value_or("");
  return checked;
}

}  // namespace millrace
